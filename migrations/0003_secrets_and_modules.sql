-- Key material, sealed (AES-256-GCM, the name and kind as associated data) before it comes near the database.
CREATE TABLE credential_material (
    name   TEXT PRIMARY KEY REFERENCES credentials (name) ON DELETE CASCADE,
    kind   TEXT NOT NULL,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One sealed, known text: a key that cannot open it is not the key that sealed the rest, and start-up can say so.
CREATE TABLE seal_check (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    sealed BLOB NOT NULL
) STRICT;

-- Modules by content: two plugins with the same bytes share a row. A rowid table, since its rows are megabytes.
CREATE TABLE module (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;
CREATE TABLE plugin_module (
    name   TEXT PRIMARY KEY REFERENCES plugins (name) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES module (digest)
) STRICT, WITHOUT ROWID;
