SELECT name::text, coalesce(setting, ''), coalesce(unit, ''), source, coalesce(boot_val, ''), context,
       vartype, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(enumvals, '{}')
FROM pg_settings
