-- Every committed change has a number. A row's entity tag is the number of the change that last wrote it, so AUTOINCREMENT
-- matters: a number that was given once is never given again, not even after the newest rows were deleted.
CREATE TABLE revision (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,               -- milliseconds since 1970, UTC
    who        TEXT    NOT NULL,
    action     TEXT    NOT NULL CHECK (action IN ('created', 'replaced', 'deleted')),
    collection TEXT    NOT NULL,
    name       TEXT    NOT NULL
) STRICT;

-- What exactly a change did, for whoever has to answer for it. Credentials appear by their public facts only.
CREATE TABLE audit (
    revision INTEGER PRIMARY KEY REFERENCES revision (number),
    role     TEXT NOT NULL,
    before   TEXT,                             -- JSON, absent when it was created
    after    TEXT                              -- JSON, absent when it was deleted
) STRICT;
