{%- set max_days = event_window_days('directional_change') -%}
{%- set at_later_high = event_settings().directional_change_magnitude == 'later_high' -%}
{%- set rises_enough = 'today.price >= legs.extreme_price * (1 + legs.theta)' -%}
{%- set falls_enough = 'today.price <= legs.extreme_price * (1 - legs.theta)' %}

with recursive inputs as (

    select
        panel_row,
        stock_id,
        rows_left,
        price,
        {{ event_may_start() }} as may_start
    from {{ ref('daily_event_inputs') }}
    where price is not null

),

thetas (theta) as (

    values
    {% for theta in event_settings().directional_change_thresholds %}
    ({{ theta }}::double){{ ',' if not loop.last }}
    {% endfor %}

),

first_days as (

    select min(panel_row) as panel_row
    from inputs
    group by stock_id

),

-- A stock is in a falling leg, whose extreme is its low, or in a rising one, whose extreme is its
-- high. One step a day, all stocks and thresholds at once.
legs as (

    select
        inputs.panel_row,
        inputs.rows_left,
        thetas.theta,
        false as is_rising,
        inputs.price as extreme_price,
        inputs.panel_row as extreme_row,
        null::double as low_price,
        null::integer as low_row,
        null::integer as confirmation_row
    from inputs
    inner join first_days on inputs.panel_row = first_days.panel_row
    cross join thetas

    union all

    select
        today.panel_row,
        today.rows_left,
        legs.theta,
        case when legs.is_rising then not {{ falls_enough }} else {{ rises_enough }} end
            as is_rising,
        case
            when legs.is_rising and not {{ falls_enough }}
                then greatest(legs.extreme_price, today.price)
            when not legs.is_rising and not {{ rises_enough }}
                then least(legs.extreme_price, today.price)
            else today.price
        end as extreme_price,
        case
            when legs.is_rising and not {{ falls_enough }} and today.price <= legs.extreme_price
                then legs.extreme_row
            when not legs.is_rising and not {{ rises_enough }} and today.price >= legs.extreme_price
                then legs.extreme_row
            else today.panel_row
        end as extreme_row,
        case
            when legs.is_rising then legs.low_price
            when {{ rises_enough }} then legs.extreme_price
        end as low_price,
        case
            when legs.is_rising then legs.low_row
            when {{ rises_enough }} then legs.extreme_row
        end as low_row,
        case
            when legs.is_rising then legs.confirmation_row
            when {{ rises_enough }} then today.panel_row
        end as confirmation_row
    from legs
    inner join inputs as today on legs.panel_row + 1 = today.panel_row
    where legs.rows_left > 0

),

rises as (

    {% if at_later_high %}
    -- the high of the rising leg, as far as it lies within the longest duration
    select
        theta,
        low_row,
        low_price,
        confirmation_row,
        max(extreme_row) as peak_row,
        max(extreme_price) as peak_price
    from legs
    where is_rising and panel_row <= low_row + {{ max_days }}
    group by theta, low_row, low_price, confirmation_row
    {% else %}
    select
        theta,
        low_row,
        low_price,
        confirmation_row,
        panel_row as peak_row,
        extreme_price as peak_price
    from legs
    where is_rising and panel_row = confirmation_row
    {% endif %}

),

candidates as (

    select
        starts.stock_id,
        row_number() over (
            partition by starts.stock_id order by rises.low_row, rises.theta
        ) as candidate_number,
        rises.low_row as start_row,
        rises.peak_row,
        rises.confirmation_row,
        rises.theta,
        rises.peak_price / rises.low_price - 1 as magnitude,
        {{ event_setting('directional_change_quality_unit') }} as scale,
        (rises.peak_price / rises.low_price - 1)
        / {{ event_setting('directional_change_quality_unit') }} as quality
    from rises
    inner join inputs as starts on rises.low_row = starts.panel_row
    where
        starts.may_start
        and starts.rows_left >= {{ max_days }}
        and rises.peak_row - rises.low_row
        between {{ event_setting('directional_change_min_days') }} and {{ max_days }}

),

{{ settled_events('directional_change', keep='best') }}
