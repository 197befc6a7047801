"""The regulator's folder of a version: what others' forms ask, answered from its passport, and by a person where no file knows."""
