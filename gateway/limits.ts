/**
 * Every limit of the gateway in one place; README.md has the same table, and a test compares the two. What bounds
 * connections (header bytes, streams per connection, idle times) is the port's: platform/rpc/port.ts.
 */
export const GATEWAY_LIMITS = {
  /** Largest request body or request message, in bytes. More is PAYLOAD_TOO_LARGE, HTTP 413. */
  maxBodyBytes: 4 * 1024 * 1024,
  /** Largest response message, in bytes. */
  maxResponseBytes: 64 * 1024 * 1024,
  /** Longest request target (path and query), in bytes. More is HTTP 414. */
  maxUrlBytes: 8 * 1024,
  /** Names and values of all headers together, in bytes, without the request target. More is HTTP 431. */
  maxHeaderBytes: 16 * 1024,
  /** Most headers of one request. More is HTTP 431. */
  maxHeaders: 64,
  /** Most query parameters of one request. */
  maxQueryParameters: 128,
  /** Deepest nesting of objects and lists in a JSON body. */
  maxJsonDepth: 64,
  /** Longest number in a JSON body, in characters. */
  maxNumberLength: 512,
  /** Most field violations that one answer lists. */
  maxViolations: 20,
  /** Longest credential, in characters. */
  maxCredentialLength: 8192,
  /** Time for a request's whole body to arrive, in milliseconds. */
  bodyTimeoutMs: 30_000,
  /** How long the rest of a refused body is read and dropped, so that the sender sees the answer, in milliseconds. */
  lingerMs: 2_000,
  /** How much of a refused body is read and dropped, in bytes. */
  lingerBytes: 16 * 1024 * 1024,
  /** Deadline of a unary call whose caller set none, in milliseconds. */
  unaryTimeoutMs: 30_000,
  /** The same for ChatService.Chat, which itself answers after ten minutes at the latest. */
  chatTimeoutMs: 630_000,
  /** Longest deadline that a caller may ask for, in milliseconds. */
  maxTimeoutMs: 3_600_000,
  /** Silence on an event stream after which a comment is sent, in milliseconds. */
  heartbeatMs: 15_000,
  /** How long a reader of an event stream may read nothing before it is cut off, in milliseconds. */
  stallMs: 60_000,
  /** How long a verified credential is believed without asking again, in milliseconds. */
  credentialTtlMs: 5_000,
  /** How long a refused credential is refused without asking again, in milliseconds. */
  refusalTtlMs: 1_000,
  /** Most verified, and most refused, credentials that are remembered. */
  maxCredentials: 10_000,
  /** Time for the verification of a credential, in milliseconds. */
  verifyTimeoutMs: 5_000,
  /** Runs that a tenant may start per second (Chat, ChatStream, StartRun); 0 is no limit, as for all rates. */
  tenantRunRate: 1000,
  /** Other calls of a tenant per second that change something. */
  tenantWriteRate: 2000,
  /** Calls of a tenant per second that only read. */
  tenantReadRate: 4000,
  /** The same for each of its credentials. */
  keyRunRate: 500,
  keyWriteRate: 1000,
  keyReadRate: 2000,
  /** What may come at once: this much time's worth of a rate, in milliseconds. */
  rateBurstMs: 5_000,
  /** Refused credentials of one address per second in the long run, before nothing from there is looked up. */
  addressFailureRate: 2,
  /** Refused credentials of one address at once. */
  addressFailureBurst: 100,
  /** Streams of one tenant that may be open at once, in this process. */
  maxTenantStreams: 2_000,
  /** How often the credential of an open stream is verified again, in milliseconds. */
  streamRecheckMs: 30_000,
  /** How long a stream may be open, up to a tenth less, in milliseconds; then STREAM_DRAINING. */
  streamAgeMs: 3_600_000,
  /** Percentage of the heap in use from which on new calls are refused. */
  heapRefusePercent: 95,
  /** Percentage of the heap in use below which they are taken again. */
  heapResumePercent: 85,
  /** Time between two looks at the heap, in milliseconds. */
  heapSampleMs: 250,
  /** Requests in flight at which this process counts as full; limits are lowered before. */
  fullInFlight: 10_000,
  /** How old the answer of /health may be, in milliseconds. */
  healthTtlMs: 1_000,
  /** Time for one component to answer its health probe, in milliseconds. */
  healthProbeMs: 2_000,
} as const;

export type GatewayLimits = { readonly [Name in keyof typeof GATEWAY_LIMITS]: number };
