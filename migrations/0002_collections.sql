-- One table for each collection, so that a column that only one of them needs has a place. Documents are JSON text in the
-- form in which they are answered; the vocabulary's types are what gives them their shape.
CREATE TABLE services  (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE routes    (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE rules     (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE workloads (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE issuers   (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- `document` holds a credential's public facts; the material is in `credential_material`.
CREATE TABLE credentials (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE plugins     (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL REFERENCES revision (number), created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Who refers to whom. Kept beside the documents so that a deletion can be refused, with the list, in its own transaction.
CREATE TABLE reference (
    from_collection TEXT NOT NULL,
    from_name       TEXT NOT NULL,
    pointer         TEXT NOT NULL,             -- JSON pointer into the referring document
    to_collection   TEXT NOT NULL,
    to_name         TEXT NOT NULL,
    PRIMARY KEY (from_collection, from_name, pointer)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_by_target ON reference (to_collection, to_name);
