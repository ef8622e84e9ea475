{{ event_labels('triple_barrier') }}
