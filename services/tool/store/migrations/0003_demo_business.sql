-- Orders of the demo shop. Kept per user; the request key makes a repeated call find its order.
CREATE TABLE tool.demo_orders (
  tenant_id text NOT NULL,
  order_id text NOT NULL,
  end_user_id text NOT NULL,
  session_id text NOT NULL,
  request_key text NOT NULL,
  total_minor bigint NOT NULL CHECK (total_minor >= 0),
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, order_id),
  UNIQUE (tenant_id, end_user_id, request_key)
);
SELECT agentmesh.protect('tool.demo_orders');

CREATE TABLE tool.demo_order_items (
  tenant_id text NOT NULL,
  order_id text NOT NULL,
  product_id text NOT NULL,
  quantity integer NOT NULL CHECK (quantity > 0),
  price_minor bigint NOT NULL CHECK (price_minor >= 0),
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, order_id, product_id),
  FOREIGN KEY (tenant_id, order_id) REFERENCES tool.demo_orders
);
CREATE INDEX demo_order_items_of_product ON tool.demo_order_items (tenant_id, product_id, created_at);
SELECT agentmesh.protect('tool.demo_order_items');

-- Transfers of the demo bank. An account's balance is its opening balance and what went in and out here.
CREATE TABLE tool.demo_transfers (
  tenant_id text NOT NULL,
  transfer_id text NOT NULL,
  end_user_id text NOT NULL,
  session_id text NOT NULL,
  request_key text NOT NULL,
  -- Ids of the demo accounts and payees, never numbers.
  from_account text NOT NULL,
  to_account text NOT NULL CHECK (to_account <> from_account),
  amount_minor bigint NOT NULL CHECK (amount_minor > 0),
  note text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, transfer_id),
  UNIQUE (tenant_id, end_user_id, request_key)
);
CREATE INDEX demo_transfers_of_user ON tool.demo_transfers (tenant_id, end_user_id, created_at DESC);
SELECT agentmesh.protect('tool.demo_transfers');

REVOKE UPDATE, DELETE ON tool.demo_orders, tool.demo_order_items, tool.demo_transfers FROM agentmesh_app;
