"""Registered versions in MLflow: tracking, the gate, promotion, packaging. The only package that imports mlflow."""
