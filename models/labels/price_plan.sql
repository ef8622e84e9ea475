select
    {{ setting('price_plan_id') }} as price_plan_id,
    {{ price_plan_hash() }} as price_plan_hash,
    {{ setting('entry_target_bps') }} as target_bps,
    {{ setting('entry_stop_bps') }} as stop_bps,
    {{ setting('entry_max_hold_minutes') }} as max_hold_minutes,
    {{ setting('entry_min_expected_net_edge_bps') }} as min_expected_net_edge_bps,
    {{ fixed_cost_bps() }} as cost_bps,
    {{ setting('entry_label_method') }} as entry_label_method,
    '{{ tojson(label_settings(), sort_keys=true) | replace("'", "''") }}'::json as settings_json
