-- From here on the lines of a batch are packed: an LZ4 block of so many bytes of JSON lines, and `bytes` is what the block takes. Where
-- this is null, as in every batch before, the lines are as they are.
ALTER TABLE batch ADD COLUMN unpacked INTEGER;

-- All that batches are looked for by. Packed lines lie where the rest of their row does, which would be read with them.
DROP INDEX batch_by_time;
CREATE INDEX batch_without_lines ON batch (number, last_us, first_us, bytes);
