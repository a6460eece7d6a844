/**
 * What a service's port allows its peers, the other processes of the mesh, beyond PORT_LIMITS. Each brings all of its calls
 * and all streams of its callers over one connection: it must not have to wait for some to end, and the callers of one
 * tenant who leave at once must not cost all others their calls, as they would where a peer's resets are counted as abuse.
 */
export const SERVICE_PORT = {
  maxConcurrentStreams: 100_000,
  maxSessionMemoryMb: 1_000,
  streamResetBurst: 100_000,
  streamResetRate: 10_000,
} as const;
