"""Detecting and replacing what identifies people, and measuring the recall of the detection."""
