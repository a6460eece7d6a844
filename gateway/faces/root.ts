import type { Face } from "./face.ts";

/** What someone sees who opens the address in a browser: where to go from here. */
export const rootFace: Face = async () => ({
  status: 200,
  json: {
    name: "agentmesh",
    rest: "/api/v1",
    docs: "/docs, /openapi.json, /api.binpb",
    rpc: "Connect, gRPC and gRPC-Web at this address; gRPC server reflection lists the services",
    health: "/health",
    credential: "Authorization: Bearer <api key>, or X-API-Key: <api key>",
    example: "POST /api/v1/chat/stream",
  },
});
