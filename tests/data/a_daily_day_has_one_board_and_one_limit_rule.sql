-- rules that overlap would double rows or let the order of the file decide
with patterns as (

    select
        code_pattern,
        replace(code_pattern, '_', '0') as code,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to
    from {{ ref('board_rules') }}

),

boards as (

    select
        one.code_pattern,
        other.code_pattern as other_pattern
    from patterns as one
    inner join patterns as other
        on
            one.code like other.code_pattern
            and one.code_pattern <> other.code_pattern
            and one.valid_from < other.valid_to
            and one.valid_to > other.valid_from

),

rules as (

    select
        limit_rule_id,
        board,
        trading_phase,
        first_day,
        last_day,
        coalesce(listed_from, '-infinity'::date) as listed_from,
        coalesce(listed_to, 'infinity'::date) as listed_to,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to
    from {{ ref('price_limit_rules') }}

),

limits as (

    select
        one.limit_rule_id,
        other.limit_rule_id as other_rule_id
    from rules as one
    inner join rules as other
        on
            one.board = other.board
            and one.trading_phase = other.trading_phase
            and one.limit_rule_id < other.limit_rule_id
            and (one.first_day is null) = (other.first_day is null)
            and coalesce(one.first_day <= other.last_day, true)
            and coalesce(one.last_day >= other.first_day, true)
            and one.listed_from < other.listed_to
            and one.listed_to > other.listed_from
            and one.valid_from < other.valid_to
            and one.valid_to > other.valid_from

)

select
    code_pattern as one,
    other_pattern as other
from boards
union all
select
    limit_rule_id as one,
    other_rule_id as other
from limits
