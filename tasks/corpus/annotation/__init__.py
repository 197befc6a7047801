"""A person of the site marks identifiers and damage in its own notes; recall and damage follow from that. Nothing leaves the machine."""
