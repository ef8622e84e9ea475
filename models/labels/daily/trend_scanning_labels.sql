{{ event_labels('trend_scanning') }}
