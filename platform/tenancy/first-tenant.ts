/**
 * The tenant of those who run the installation. Its id is fixed, so that services which make their own rows for it at
 * the first start agree on it without talking to each other. Only its keys may hold `platform:admin`.
 */
export const FIRST_TENANT_ID = "ten_00000000000000000000000001";
