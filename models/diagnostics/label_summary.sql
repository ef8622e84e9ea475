{%- set points = diagnostic_points() -%}
{%- set labels = ['LONG', 'NEUTRAL', 'SHORT'] -%}

with splits as (

    {{ split_rows(diagnostic_splits()) }}

),

directions as (

    select
        split_id,
        direction_label,
        future_return_bps
    from {{ ref('direction_labels') }}

),

entries as (

    select
        split_id,
        side,
        entry_target,
        expected_net_edge_bps
    from {{ ref('entry_labels') }}

),

direction_splits as (

    select
        split_id,
        count(*) as row_count,
        {% for label in labels %}
        count(*) filter (where direction_label = '{{ label }}') as {{ label | lower }}_rows,
        {% endfor %}
        quantile_cont(future_return_bps, {{ points.return_quantiles }}::double[])
            filter (where isfinite(future_return_bps)) as quantiles
    from directions
    group by split_id

),

entry_splits as (

    select
        split_id,
        side,
        count(*) as row_count,
        avg(entry_target::double) as target_rate,
        avg(expected_net_edge_bps) as edge_mean_bps,
        quantile_cont(expected_net_edge_bps, {{ points.edge_quantiles }}::double[])
            filter (where isfinite(expected_net_edge_bps)) as quantiles
    from entries
    group by split_id, side

),

-- every split has the same rows here, with or without labels
direction_statistics as (

    select
        splits.split_id,
        'direction' as label_set,
        'BOTH' as side,
        unnest([
            {
                'statistic': 'rows',
                'quantile': null::double,
                'value': coalesce(row_count, 0)::double
            },
            {% for label in labels %}
            {
                'statistic': 'ratio_{{ label | lower }}',
                'quantile': null,
                'value': {{ six_decimals(label | lower ~ '_rows / row_count::double') }}
            },
            {% endfor %}
            {% for quantile in points.return_quantiles %}
            {
                'statistic': 'future_return_bps_q{{ quantile }}',
                'quantile': {{ quantile }},
                'value': {{ six_decimals('quantiles[' ~ loop.index ~ ']') }}
            }
            {{- ',' if not loop.last }}
            {% endfor %}
        ], recursive := true)
    from splits
    left join direction_splits using (split_id)

),

entry_rows as (

    select
        splits.split_id,
        'entry' as label_set,
        'BOTH' as side,
        'rows' as statistic,
        null::double as quantile,
        coalesce(sum(entry_splits.row_count), 0)::double as value
    from splits
    left join entry_splits using (split_id)
    group by splits.split_id

),

entry_statistics as (

    select
        splits.split_id,
        'entry' as label_set,
        sides.side,
        unnest([
            {
                'statistic': 'rows',
                'quantile': null::double,
                'value': coalesce(row_count, 0)::double
            },
            {
                'statistic': 'target_rate',
                'quantile': null,
                'value': {{ six_decimals('target_rate') }}
            },
            {
                'statistic': 'net_edge_bps_mean',
                'quantile': null,
                'value': {{ six_decimals('edge_mean_bps') }}
            },
            {% for quantile in points.edge_quantiles %}
            {
                'statistic': 'net_edge_bps_q{{ quantile }}',
                'quantile': {{ quantile }},
                'value': {{ six_decimals('quantiles[' ~ loop.index ~ ']') }}
            }
            {{- ',' if not loop.last }}
            {% endfor %}
        ], recursive := true)
    from splits
    cross join (select unnest(['LONG', 'SHORT']) as side) as sides
    left join entry_splits
        on
            splits.split_id = entry_splits.split_id
            and sides.side = entry_splits.side

),

statistics as (

    select * from direction_statistics
    union all
    select * from entry_rows
    union all
    select * from entry_statistics

)

select
    split_id,
    label_set,
    side,
    statistic,
    quantile,
    value
from statistics
order by {{ split_order() }}, label_set, side, quantile nulls first, statistic
