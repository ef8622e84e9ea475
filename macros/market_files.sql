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


{#- Columns of every file as {file: {'names': {lower-case name: name as written}, 'other_types': [...]}}:
    the file's own, and the keys of partition folders (symbol=BTCUSDT/) above it. other_types are the
    columns that are neither numbers nor text (a timestamp, say). Parquet footers are read at once. -#}
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
        {% do found.update({file: {'names': names, 'other_types': []}}) %}
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
        {% endfor %}
    {% endif %}
    {% do return(found) %}
{% endmacro %}


{#- How to read every file of a source: {'selects': one select per group of files with the same
    columns, 'raw_columns': names inside raw_row}. Each select gives the contract's columns as read
    (untyped), source_file, has_too_many_fields (CSV lines longer than their header) and raw_row,
    the whole row as a struct. Stops the build, naming the file, the columns found and the columns
    expected, when a required column is missing; `remedy` says what to do when there is no file. -#}
{% macro market_rows(relation, required, optional, remedy) %}
    {% set location = relation | string | replace("'", '') %}
    {% set files = market_files(location) %}
    {% if execute and not files.parquet and not files.csv %}
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
            {% set signature = [kind, columns.values() | sort, found.other_types | sort] | string %}
            {% if signature not in groups %}
                {% do groups.update({signature: {
                    'kind': kind, 'columns': columns, 'other_types': found.other_types, 'files': [],
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
            {% do outputs.append(values[name] ~ ' as ' ~ name) %}
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


{#- The column raw_row of market_rows as JSON, every value as text: JSON has no NaN or infinity. -#}
{% macro row_as_json(raw_columns) -%}
    to_json(struct_pack(
        {%- for name in raw_columns %}
        {{ adapter.quote(name) }} := raw_row.{{ adapter.quote(name) }}::varchar{{ ',' if not loop.last }}
        {%- endfor %}
    ))
{%- endmacro %}


{#- Key of a refused row as far as it could be read: `symbol@time`, NULL when neither could. -#}
{% macro row_key(symbol, time) -%}
    case
        when {{ symbol }} is not null or {{ time }} is not null
            then coalesce({{ symbol }}, '') || '@' || coalesce({{ time }}::varchar, '')
    end
{%- endmacro %}


{#- Last minute that a bar may have: the end of 2099. A later one is a time in the wrong unit
    (microseconds, nanoseconds). -#}
{% macro last_open_time_ms() -%} 4102444740000 {%- endmacro %}
