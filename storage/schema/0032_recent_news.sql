-- What is new for anybody is looked up by position alone (storage/recent_news.py).

CREATE INDEX account_data_news ON account_data (pos);
CREATE INDEX push_rules_news ON push_rules (pos);
CREATE INDEX to_device_messages_news ON to_device_messages (pos);
CREATE INDEX gone_rooms_news ON gone_rooms (pos);
