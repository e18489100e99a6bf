"""People's feedback on responses: tasks, annotations, their store, and other programs' formats. No web framework."""
