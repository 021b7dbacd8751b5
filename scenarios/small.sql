-- A small second database: what a ticket desk writes.
CREATE TABLE public.events (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  starts timestamptz NOT NULL
);
CREATE TABLE public.tickets (
  id bigserial PRIMARY KEY,
  event integer NOT NULL REFERENCES public.events (id),
  sold timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tickets_event ON public.tickets (event);
INSERT INTO public.events (name, starts)
  SELECT 'concert ' || i, '2027-06-01 20:00:00+00'::timestamptz + i * interval '1 day' FROM generate_series(1, 100) i;
INSERT INTO public.tickets (event) SELECT 1 + i % 100 FROM generate_series(1, 5000) i;
CREATE VIEW public.sold AS SELECT event, count(*) AS tickets FROM public.tickets GROUP BY event;
