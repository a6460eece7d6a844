import { newAdminKey } from "#services/auth/index.ts";

// npm run -s admin-key: prints a key for AGENTMESH_ADMIN_KEY. It is nobody's until a mesh is started with it.
console.log(newAdminKey());
