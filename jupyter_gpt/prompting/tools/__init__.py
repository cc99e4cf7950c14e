"""Tools: functions that a model may call, each shown with its schema, checked, contained and logged."""
