import type { ClientConfig } from "pg";
import { valueTypes } from "./value-types.ts";

/** Where a database is: a URL (`postgresql://user:password@host:5432/name`), or its parts; a host that is a directory is a unix socket's. */
export type Connection =
  | { readonly url: string }
  | {
      readonly host: string;
      readonly port?: number | undefined;
      readonly user: string;
      readonly password: string;
      readonly database: string;
    };

/** The settings of pg for a connection. Times in milliseconds. */
export function clientConfig(connection: Connection, applicationName: string, connectTimeoutMs: number): ClientConfig {
  const where =
    "url" in connection
      ? { connectionString: connection.url }
      : {
          host: connection.host,
          port: connection.port ?? 5432,
          user: connection.user,
          password: connection.password,
          database: connection.database,
        };
  return {
    ...where,
    application_name: applicationName,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    types: valueTypes as NonNullable<ClientConfig["types"]>,
  };
}

/** The same server and user, another database. */
export function withDatabase<C extends Connection>(connection: C, database: string): C {
  if (!("url" in connection)) return { ...connection, database };
  const url = new URL(connection.url);
  url.pathname = `/${encodeURIComponent(database)}`;
  return { ...connection, url: url.href };
}

/** The user that a connection logs in as; undefined when a URL leaves it to the environment. */
export function userOf(connection: Connection): string | undefined {
  if (!("url" in connection)) return connection.user;
  return decodeURIComponent(new URL(connection.url).username) || undefined;
}
