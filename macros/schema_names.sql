{#- Schemas carry the folder's bare name: labels.entry_labels, never main_labels.entry_labels. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name if custom_schema_name is not none else target.schema }}
{%- endmacro %}
