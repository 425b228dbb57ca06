-- Runs once, in the new database "shop": the bridge's role, and two tables that it owns, because only
-- the owner of a table may add it to a publication.
\getenv secret SHOP_PASSWORD
CREATE ROLE cdc LOGIN REPLICATION PASSWORD :'secret';
GRANT CREATE ON DATABASE shop TO cdc;
GRANT CREATE, USAGE ON SCHEMA public TO cdc;

SET ROLE cdc;

CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    name text,
    preferences jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    customer_id bigint NOT NULL REFERENCES customers,
    number integer NOT NULL,
    total numeric(12, 2) NOT NULL,
    state text NOT NULL DEFAULT 'open',
    placed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, number)
);

INSERT INTO customers (email, name) VALUES ('ada@example.com', 'Ada'), ('grace@example.com', 'Grace');
INSERT INTO orders (customer_id, number, total) VALUES (1, 1, 19.90), (1, 2, 5.00), (2, 1, 120.00);
