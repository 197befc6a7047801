"""The command ``medllama`` for people who only use a model. The wheel holds it with the modules that it needs, all below this name."""
