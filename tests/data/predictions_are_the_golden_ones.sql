-- What SQL makes of raw scores and maps is what Python made of them when the model was stored.

with predictions as (

    {% for output, facts in head_outputs().items() %}
    select
        sample_id,
        '{{ output }}' as output,
        {{ facts.target }}_model_id as model_id,
        {{ output }} as prediction
    from {{ ref(facts.head ~ '_predictions') }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    golden.output,
    golden.sample_id,
    golden.prediction as expected,
    predictions.prediction as found
from {{ ref('golden_cases') }} as golden
inner join predictions using (sample_id, output, model_id)
where abs(golden.prediction - predictions.prediction) > 1e-12
