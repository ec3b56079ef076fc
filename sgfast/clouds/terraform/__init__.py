"""Terraform: plans and states of each provider, and configurations."""
