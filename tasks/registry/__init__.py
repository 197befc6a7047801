"""Registered versions in MLflow: tracking, the gate, promotion, packaging. The only importer of mlflow."""
