"""Environments of other libraries: OpenEnv servers, and environments of verifiers."""
