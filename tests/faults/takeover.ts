/**
 * Whether another replica goes on with a run whose owner died. False: it ends the run as run_failed OWNER_LOST, and the
 * checks expect that. True: every run has to complete, whatever was done to its owners.
 */
export const TAKEOVER = true;
