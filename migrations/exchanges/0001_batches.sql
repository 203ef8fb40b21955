-- Records live in a database of their own: they are written all the time and may lose the last moments in a power cut
-- (synchronous=NORMAL), while a configuration change may not and must never wait behind them.
--
-- One row per batch keeps the cost of a record at a fraction of a row's; the times bound what a query has to read.
CREATE TABLE batch (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    first_us INTEGER NOT NULL,                 -- earliest record, microseconds since 1970
    last_us  INTEGER NOT NULL,                 -- latest record
    count    INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    lines    BLOB    NOT NULL                  -- JSON lines
) STRICT;
CREATE INDEX batch_by_time ON batch (last_us);
