import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ApiKeyService } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { AgentConfigService } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { UserProfileService } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { isPublic } from "#platform/rpc/method-rules.ts";

/** The services of which the gateway mounts what is public. A test compares this list with all that gen/ has. */
export const PUBLIC_SERVICES: readonly DescService[] = [
  ChatService,
  RunService,
  ApprovalService,
  SessionService,
  AgentConfigService,
  TenantService,
  UserProfileService,
  ModelCredentialService,
  ApiKeyService,
  ToolService,
];

/** The methods that may be mounted; INTERNAL ones and those without a declared exposure never are. */
export function publicMethods(services: readonly DescService[]): DescMethod[] {
  return services.flatMap(({ methods }) => methods).filter(isPublic);
}
