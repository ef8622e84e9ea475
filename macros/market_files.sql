{#- How staging reads what a person put under WAREHOUSE_DATA: one file, or a folder of them
    (partitioned folders too), parquet or CSV, told apart by their endings. -#}

{#- Files of `location` (a source's external location without its ending), sorted, as
    {'parquet': [...], 'csv': [...]}. Only looks when dbt executes. -#}
{% macro market_files(location) %}
    {% set files = {'parquet': [], 'csv': []} %}
    {% if execute %}
        {% set path = location | replace("'", "''") %}
        {% set listing %}
            select distinct file
            from (
                {% for suffix in ['parquet', 'csv', 'csv.gz'] %}
                select unnest(list(file)) as file from glob('{{ path }}.{{ suffix }}')
                union all
                select unnest(list(file)) as file from glob('{{ path }}/**/*.{{ suffix }}')
                {{ 'union all' if not loop.last }}
                {% endfor %}
            )
            order by file
        {% endset %}
        {% for row in run_query(listing).rows %}
            {% do files['parquet' if row[0].endswith('.parquet') else 'csv'].append(row[0]) %}
        {% endfor %}
    {% endif %}
    {% do return(files) %}
{% endmacro %}


{% macro market_scan(files, kind) -%}
    {%- set quoted = [] -%}
    {%- for file in files -%} {%- do quoted.append("'" ~ file | replace("'", "''") ~ "'") -%} {%- endfor -%}
    {%- if kind == 'parquet' -%}
        read_parquet([{{ quoted | join(', ') }}], filename = true, union_by_name = true, hive_partitioning = true, hive_types_autocast = false)
    {%- else -%}
        read_csv([{{ quoted | join(', ') }}], filename = true, union_by_name = true, hive_partitioning = true, hive_types_autocast = false, header = true, all_varchar = true, null_padding = true)
    {%- endif -%}
{%- endmacro %}


{#- Columns of every file as {file: {'names': {lower-case name: name as written}, 'other_types': [...],
    'date_types': [...]}}: the file's own, and the keys of partition folders (symbol=BTCUSDT/) above it.
    other_types are the columns that are neither numbers nor text (a timestamp, say), date_types those
    among them that are dates. Parquet footers are read at once. -#}
{% macro market_file_columns(files, kind) %}
    {% set found = {} %}
    {% for file in files %}
        {% set names = {} %}
        {% for key in modules.re.findall('/([^/=]+)=[^/]*(?=/)', file) %}
            {% do names.update({key | lower: key}) %}
        {% endfor %}
        {% if kind == 'csv' %}
            {% set header = 'describe select * exclude (filename) from ' ~ market_scan([file], kind) %}
            {% for row in run_query(header).rows %}
                {% do names.update({row[0] | lower: row[0]}) %}
            {% endfor %}
        {% endif %}
        {% do found.update({file: {'names': names, 'other_types': [], 'date_types': []}}) %}
    {% endfor %}
    {% if kind == 'parquet' %}
        {% set footers %}
            select file_name, name, duckdb_type
            from parquet_schema([
                {%- for file in files %}'{{ file | replace("'", "''") }}'{{ ', ' if not loop.last }}{% endfor -%}
            ])
            where duckdb_type is not null
        {% endset %}
        {% for row in run_query(footers).rows %}
            {% do found[row[0]].names.update({row[1] | lower: row[1]}) %}
            {% if not modules.re.fullmatch('VARCHAR|U?(BIG|HUGE|SMALL|TINY)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*', row[2]) %}
                {% do found[row[0]].other_types.append(row[1] | lower) %}
            {% endif %}
            {% if row[2] == 'DATE' %} {% do found[row[0]].date_types.append(row[1] | lower) %} {% endif %}
        {% endfor %}
    {% endif %}
    {% do return(found) %}
{% endmacro %}


{#- How to read every file of a source: {'selects': one select per group of files with the same
    columns, 'raw_columns': names inside raw_row}. Each select gives the contract's columns as read
    (untyped), source_file, has_too_many_fields (CSV lines longer than their header) and raw_row,
    the whole row as a struct. Stops the build, naming the file, the columns found and the columns
    expected, when a required column is missing; `remedy` says what to do when there is no file. Without
    a remedy the source is optional: where there is no file, one select without rows is given, and the
    log says so. Columns in `dates` are read as DATE, NULL where they cannot be. -#}
{% macro market_rows(relation, required, optional, remedy=none, dates=[]) %}
    {% set location = relation | string | replace("'", '') %}
    {% set files = market_files(location) %}
    {% set is_absent = not files.parquet and not files.csv %}
    {% if remedy is none and is_absent %}
        {% if execute %}
            {% do log('No ' ~ location ~ ' (.parquet, .csv or a folder): its relation is empty.') %}
        {% endif %}
        {% do return(no_market_rows(required + optional, dates)) %}
    {% elif execute and is_absent %}
        {% do exceptions.raise_compiler_error(
            'No data: there is no ' ~ location ~ '.parquet, no ' ~ location
            ~ '.csv, and no .parquet, .csv or .csv.gz file in the folder ' ~ location ~ '/. ' ~ remedy
        ) %}
    {% endif %}
    {% set groups = {} %}
    {% set raw_columns = [] %}
    {% for kind in ['parquet', 'csv'] if files[kind] %}
        {% for file, found in market_file_columns(files[kind], kind).items() %}
            {% set columns = found.names %}
            {% set missing = required | reject('in', columns.keys() | list) | list %}
            {% if missing %}
                {% do exceptions.raise_compiler_error(
                    file ~ ': no column ' ~ missing | join(', ') ~ '. Found: ' ~ columns.values() | join(', ')
                    ~ '. Expected: ' ~ required | join(', ') ~ ', and optionally ' ~ optional | join(', ')
                    ~ '. Rename the column, or bring the file in with `wavehouse ingest` (see --help).'
                ) %}
            {% endif %}
            {% set signature = [kind, columns.values() | sort, found.other_types | sort, found.date_types | sort] | string %}
            {% if signature not in groups %}
                {% do groups.update({signature: {
                    'kind': kind, 'columns': columns, 'other_types': found.other_types,
                    'date_types': found.date_types, 'files': [],
                }}) %}
            {% endif %}
            {% do groups[signature].files.append(file) %}
            {% for name in columns if name not in raw_columns %} {% do raw_columns.append(name) %} {% endfor %}
        {% endfor %}
    {% endfor %}
    {% set selects = [] %}
    {% for group in groups.values() %}
        {% set names = group.columns %}
        {% set values = {} %}
        {% for name in required + optional + raw_columns %}
            {# a type without a cast to numbers is read as text, and refused row by row #}
            {% set cast = '::varchar' if name in group.other_types else '' %}
            {% do values.update({name: adapter.quote(names[name]) ~ cast if name in names else 'null'}) %}
        {% endfor %}
        {% set outputs = [] %}
        {% for name in required + optional %}
            {% if name not in dates or name not in names %} {% set output = values[name] %}
            {% elif name in group.date_types %} {% set output = adapter.quote(names[name]) %}
            {% else %} {% set output = parsed_date(values[name]) %}
            {% endif %}
            {% do outputs.append(output ~ ' as ' ~ name) %}
        {% endfor %}
        {% set raw = [] %}
        {% set spilled = [] %}
        {% for name in raw_columns %}
            {% do raw.append(adapter.quote(name) ~ ' := ' ~ values[name]) %}
            {% if group.kind == 'csv' and name in names and modules.re.fullmatch('column[0-9]+', name) %}
                {% do spilled.append(adapter.quote(names[name]) ~ ' is not null') %}
            {% endif %}
        {% endfor %}
        {% do selects.append(
            'select ' ~ outputs | join(', ') ~ ', filename as source_file, ' ~ (spilled | join(' or ') or 'false')
            ~ ' as has_too_many_fields, struct_pack(' ~ raw | join(', ') ~ ') as raw_row from '
            ~ market_scan(group.files, group.kind)
        ) %}
    {% endfor %}
    {% do return({'selects': selects, 'raw_columns': raw_columns}) %}
{% endmacro %}


{#- What market_rows gives where an optional source has no file. -#}
{% macro no_market_rows(columns, dates) %}
    {% set outputs = [] %}
    {% set raw = [] %}
    {% for name in columns %}
        {% do outputs.append('null::' ~ ('date' if name in dates else 'varchar') ~ ' as ' ~ name) %}
        {% do raw.append(adapter.quote(name) ~ ' := null::varchar') %}
    {% endfor %}
    {% do return({
        'selects': [
            'select ' ~ outputs | join(', ') ~ ', null::varchar as source_file, false as has_too_many_fields, struct_pack('
            ~ raw | join(', ') ~ ') as raw_row where false'
        ],
        'raw_columns': columns,
    }) %}
{% endmacro %}


{#- A date from ISO 8601 text (a clock time is cut off) or from eight digits, NULL when it is neither. -#}
{% macro parsed_date(value) -%}
    coalesce(try_cast({{ value }}::varchar as date), try_strptime({{ value }}::varchar, '%Y%m%d')::date)
{%- endmacro %}


{#- The column raw_row of market_rows as JSON, every value as text: JSON has no NaN or infinity. -#}
{% macro row_as_json(raw_columns) -%}
    to_json(struct_pack(
        {%- for name in raw_columns %}
        {{ adapter.quote(name) }} := raw_row.{{ adapter.quote(name) }}::varchar{{ ',' if not loop.last }}
        {%- endfor %}
    ))
{%- endmacro %}


{#- CTEs that settle the rows of a CTE `judged` that share a key, to be followed by a select from `verdicts`:
    of exact repeats one is kept, of several different sound rows of one key none. `judged` has
    own_reject_reason (NULL where the row is sound), source_file and raw_row. `verdicts` has its other
    columns and duplicate_count, is_repeat, reject_reason, row_json (of refused rows).
    Three branches instead of one join: sound rows without a repeat, nearly all, carry nothing along. -#}
{% macro repeat_verdicts(keys, row_hash, raw_columns) -%}
{%- set key = keys | join(', ') -%}
-- keys that several sound rows share, and whether these rows are the same
repeated_keys as materialized (

    select
        {{ key }},
        count(*) as row_count,
        min({{ row_hash }}) <> max({{ row_hash }}) as is_conflict
    from judged
    where own_reject_reason is null
    group by {{ key }}
    having count(*) > 1

),

single_rows as (

    select
        judged.* exclude (own_reject_reason, raw_row),
        0 as duplicate_count,
        false as is_repeat,
        null as reject_reason,
        null as row_json
    from judged
    anti join repeated_keys using ({{ key }})
    where judged.own_reject_reason is null

),

-- of exact repeats one is kept, from the first file by name
repeated_rows as (

    select
        judged.* exclude (own_reject_reason, raw_row),
        repeated_keys.row_count - 1 as duplicate_count,
        row_number() over (
            partition by judged.{{ keys | join(', judged.') }} order by judged.source_file
        ) > 1 as is_repeat,
        null as reject_reason,
        null as row_json
    from judged
    inner join repeated_keys using ({{ key }})
    where judged.own_reject_reason is null and not repeated_keys.is_conflict

),

refused_rows as (

    select
        judged.* exclude (own_reject_reason, raw_row),
        0 as duplicate_count,
        false as is_repeat,
        coalesce(judged.own_reject_reason, 'conflicting_duplicate_key') as reject_reason,
        {{ row_as_json(raw_columns) }} as row_json
    from judged
    left join repeated_keys using ({{ key }})
    where
        judged.own_reject_reason is not null
        or coalesce(repeated_keys.is_conflict, false)

),

verdicts as (

    select * from single_rows
    union all by name
    select * from repeated_rows
    union all by name
    select * from refused_rows

)
{%- endmacro %}


{#- Key of a refused row as far as it could be read, its columns joined by @, NULL when none could. -#}
{% macro row_key(columns) -%}
    case
        when coalesce({% for column in columns %}{{ column }}::varchar{{ ', ' if not loop.last }}{% endfor %}) is not null
            then {% for column in columns %}coalesce({{ column }}::varchar, ''){{ " || '@' || " if not loop.last }}{% endfor %}
    end
{%- endmacro %}


{#- Last minute that a bar may have: the end of 2099. A later one is a time in the wrong unit
    (microseconds, nanoseconds). -#}
{% macro last_open_time_ms() -%} 4102444740000 {%- endmacro %}


{#- Whether a source has a file at all. False until dbt executes. -#}
{% macro has_market_files(relation) %}
    {% set files = market_files(relation | string | replace("'", '')) %}
    {% do return((files.parquet or files.csv) | length > 0) %}
{% endmacro %}
