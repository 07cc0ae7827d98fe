"""The schema that revision 0001 creates. A released revision never changes: later ones change the schema."""
