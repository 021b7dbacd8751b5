SELECT name::text, coalesce(setting, ''), coalesce(unit, ''), source, coalesce(boot_val, ''), context
FROM pg_settings
