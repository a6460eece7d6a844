-- Plans that no run refers to any more are removed, and their content is seen by nobody on the way.
SELECT agentmesh.worker_access('agent.plans', 'select (tenant_id, plan_id, create_time), delete');
