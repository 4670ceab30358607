# Generates protos/gen.
.venv/bin/python protos/generate.py
