{{ event_labels('excess_adaptive') }}
