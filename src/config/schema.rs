//! The JSON schema, made from the tables.
