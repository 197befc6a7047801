"""A version's passport in the formats that others' tools read. The passport stays the source; these say what it says, and no more."""
