"""What a run read, kept so that anyone can find it again: documents, the steps that saw them, spans of an answer."""
