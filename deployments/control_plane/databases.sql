-- The two databases, each with an owner of its own, whose password is in the environment. What is there already gets the password and stays.
\set ON_ERROR_STOP on
\getenv prefect_password PREFECT_PASSWORD
\getenv leases_password LEASES_PASSWORD
SELECT format('CREATE ROLE %I LOGIN', name) FROM (VALUES ('prefect'), ('leases')) AS roles (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE prefect PASSWORD :'prefect_password';
ALTER ROLE leases PASSWORD :'leases_password';
SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM (VALUES ('prefect'), ('leases')) AS databases (name)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
-- Nobody reads the other's.
REVOKE CONNECT, TEMPORARY ON DATABASE prefect FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE leases FROM PUBLIC;
-- Prefect finds runs by parts of their names.
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
