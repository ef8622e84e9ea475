{{ event_labels('directional_change') }}
