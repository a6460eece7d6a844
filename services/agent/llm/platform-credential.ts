/** Stands for the platform's own key of a provider where a tenant's own credential has its id. */
export const platformCredentialId = "platform";
