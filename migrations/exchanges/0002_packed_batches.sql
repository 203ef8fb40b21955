-- Since then the lines of a batch are packed: an LZ4 block of so many bytes of JSON lines. Where this is null, as in every batch
-- before, they are kept as they are.
ALTER TABLE batch ADD COLUMN unpacked INTEGER;
