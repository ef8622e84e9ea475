{#- The normal distribution in plain SQL. An argument is written into the result many times: give a column
    or a literal, and name anything longer in a CTE first. -#}

{#- P(Z <= x) of a standard normal Z; NULL for NULL and NaN. A ratio of polynomials for |x| < 10 / sqrt(2), a
    continued fraction beyond: Hart, "Computer Approximations" (1968), as given by West, "Better approximations
    to cumulative normal functions", Wilmott Magazine, May 2005. -#}
{% macro normal_cdf(x) -%}
    {%- set z -%} abs({{ x }}) {%- endset -%}
    {%- set tail -%}
        exp(-{{ x }} * {{ x }} / 2) * case
            when {{ z }} < 7.07106781186547::double then {{ _polynomial(z, [
                '3.52624965998911e-2', '0.700383064443688', '6.37396220353165', '33.912866078383',
                '112.079291497871', '221.213596169931', '220.206867912376',
            ]) }} / {{ _polynomial(z, [
                '8.83883476483184e-2', '1.75566716318264', '16.064177579207', '86.7807322029461',
                '296.564248779674', '637.333633378831', '793.826512519948', '440.413735824752',
            ]) }}
            else 1 / (
                {{ z }} + 1 / ({{ z }} + 2 / ({{ z }} + 3 / ({{ z }} + 4 / ({{ z }} + 0.65::double))))
            ) / sqrt(2 * pi())
        end
    {%- endset -%}
    case
        when isnan({{ x }}) then null
        when {{ x }} > 0 then 1 - {{ tail }}
        else {{ tail }}
    end
{%- endmacro %}


{#- The x with P(Z <= x) = p; -inf at 0, inf at 1, NULL for NULL, NaN and anything outside 0 to 1. Algorithm
    AS 241, PPND16: Wichura, "The percentage points of the normal distribution", Applied Statistics 37 (1988)
    477-484. -#}
{% macro normal_quantile(p) -%}
    {%- set centre -%} (0.180625::double - ({{ p }} - 0.5::double) * ({{ p }} - 0.5::double)) {%- endset -%}
    {#- the guard keeps the logarithm's argument above zero in the branches that are not taken -#}
    {%- set tail -%}
        sqrt(-ln(case when {{ p }} > 0 and {{ p }} < 1 then least({{ p }}, 1 - {{ p }}) else 0.5::double end))
    {%- endset -%}
    {%- set near_tail -%} ({{ tail }} - 1.6::double) {%- endset -%}
    {%- set far_tail -%} ({{ tail }} - 5) {%- endset -%}
    case
        when isnan({{ p }}) or {{ p }} < 0 or {{ p }} > 1 then null
        when {{ p }} = 0 then '-inf'::double
        when {{ p }} = 1 then 'inf'::double
        when abs({{ p }} - 0.5::double) <= 0.425::double
            then ({{ p }} - 0.5::double) * {{ _polynomial(centre, [
                '2509.0809287301226727', '33430.575583588128105', '67265.770927008700853',
                '45921.953931549871457', '13731.693765509461125', '1971.5909503065514427',
                '133.14166789178437745', '3.387132872796366608',
            ]) }} / {{ _polynomial(centre, [
                '5226.495278852854561', '28729.085735721942674', '39307.89580009271061',
                '21213.794301586595867', '5394.1960214247511077', '687.1870074920579083',
                '42.313330701600911252', '1',
            ]) }}
        else sign({{ p }} - 0.5::double) * case
            when {{ tail }} <= 5 then {{ _polynomial(near_tail, [
                '7.7454501427834140764e-4', '0.0227238449892691845833', '0.24178072517745061177',
                '1.27045825245236838258', '3.64784832476320460504', '5.7694972214606914055',
                '4.6303378461565452959', '1.42343711074968357734',
            ]) }} / {{ _polynomial(near_tail, [
                '1.05075007164441684324e-9', '5.475938084995344946e-4', '0.0151986665636164571966',
                '0.14810397642748007459', '0.68976733498510000455', '1.6763848301838038494',
                '2.05319162663775882187', '1',
            ]) }}
            else {{ _polynomial(far_tail, [
                '2.01033439929228813265e-7', '2.71155556874348757815e-5', '1.2426609473880784386e-3',
                '0.026532189526576123093', '0.29656057182850489123', '1.7848265399172913358',
                '5.4637849111641143699', '6.6579046435011037772',
            ]) }} / {{ _polynomial(far_tail, [
                '2.04426310338993978564e-15', '1.4215117583164458887e-7', '1.8463183175100546818e-5',
                '7.868691311456132591e-4', '0.0148753612908506148525', '0.13692988092273580531',
                '0.59983220655588793769', '1',
            ]) }}
        end
    end
{%- endmacro %}


{#- By Horner's rule; coefficients from the highest power down. -#}
{% macro _polynomial(x, coefficients) -%}
    {{ '(' * (coefficients | length - 1) }}{{ coefficients[0] }}::double
    {%- for coefficient in coefficients[1:] %} * {{ x }} + {{ coefficient }}::double){% endfor -%}
{%- endmacro %}


{#- Expected maximum of n independent standard normals, n not necessarily whole; 0 up to n = 1, NULL for NULL. An
    upper quantile is minus the lower one, which keeps its digits for a large n. Bailey and Lopez de Prado, "The
    Deflated Sharpe Ratio", Journal of Portfolio Management 40 (2014) 94-107. -#}
{% macro expected_normal_maximum(n) -%}
    {%- set euler_mascheroni = '0.57721566490153286::double' -%}
    case
        when {{ n }} <= 1 then 0::double
        when {{ n }} > 1 then greatest(0::double, -list_sum(list_transform(
            [
                {'p': 1 / ({{ n }})::double, 'share': 1 - {{ euler_mascheroni }}},
                {'p': exp(-1) / ({{ n }})::double, 'share': {{ euler_mascheroni }}}
            ],
            lambda tail: tail.share * {{ normal_quantile('tail.p') }}
        )))
    end
{%- endmacro %}


{#- Standard normal whose distribution function at it is the probabilistic Sharpe ratio: how sure it is that
    the true Sharpe ratio exceeds `benchmark`, from `n` returns of this skewness and kurtosis (3 for a normal).
    NULL where the Sharpe ratio has no standard error. Bailey and Lopez de Prado, "The Sharpe Ratio Efficient
    Frontier", Journal of Risk 15 (2012) 3-44. -#}
{% macro probabilistic_sharpe_z(sharpe, benchmark, skewness, kurtosis, n) -%}
    ({{ sharpe }} - {{ benchmark }}) * sqrt({{ n }} - 1)
        / nullif(sqrt(greatest(
            1 - {{ skewness }} * {{ sharpe }}
            + ({{ kurtosis }} - 1) / 4 * {{ sharpe }} * {{ sharpe }},
            0::double
        )), 0)
{%- endmacro %}
