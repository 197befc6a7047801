"""What the regulator's folder and its files are called: in a version, and to whoever looks for them."""

FOLDER = "compliance"  # of a version; later ones have numbers
DOCUMENT, SCHEMA, CARD, PAGE = "compliance.json", "compliance.schema.json", "chai-applied-model-card.xml", "compliance.html"
