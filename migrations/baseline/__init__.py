"""The schema that revision 0100 creates. A released revision never changes: later ones change the schema."""
